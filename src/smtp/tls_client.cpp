#include "smtp/tls_client.hpp"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <array>

#include "base/bounded.hpp"

namespace greymx::smtp {

namespace {

struct Free {
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
  void operator()(SSL_SESSION* session) const { SSL_SESSION_free(session); }
};

constexpr std::size_t kept_sessions = 256;

// Each connection knows under which key its sessions are kept.
int key_index() {
  static const int index = SSL_get_ex_new_index(
      0, nullptr, nullptr, nullptr,
      [](void*, void* key, CRYPTO_EX_DATA*, int, long, void*) { delete static_cast<std::string*>(key); });
  return index;
}

std::string fingerprint_of(const SSL* ssl) {
  const X509* certificate = SSL_get0_peer_certificate(ssl);
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned length = 0;
  if (certificate == nullptr || X509_digest(certificate, EVP_sha256(), digest.data(), &length) != 1) return {};
  std::string hex;
  for (unsigned i = 0; i < length; ++i) hex += fmt::format("{:02x}", digest[i]);
  return hex;
}

}  // namespace

struct TlsClient::Impl {
  CertificateCheck check;
  std::string fingerprint;
  std::unique_ptr<SSL_CTX, Free> context{SSL_CTX_new(TLS_client_method())};
  LruMap<std::string, std::unique_ptr<SSL_SESSION, Free>> sessions{kept_sessions};

  static int keep_session(SSL* ssl, SSL_SESSION* session) {
    auto* self = static_cast<Impl*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)));
    const auto* key = static_cast<const std::string*>(SSL_get_ex_data(ssl, key_index()));
    if (self == nullptr || key == nullptr) return 0;
    self->sessions.insert(*key, std::unique_ptr<SSL_SESSION, Free>(session));
    return 1;  // ours now
  }

  void prepare(SSL* ssl, const std::string& host, const std::string& key) {
    const bool is_address = IpAddress::parse(host).has_value();
    if (!is_address) SSL_set_tlsext_host_name(ssl, host.c_str());
    if (check == CertificateCheck::name) {
      if (is_address) {
        X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host.c_str());
      } else {
        SSL_set1_host(ssl, host.c_str());
      }
    }
    SSL_set_ex_data(ssl, key_index(), new std::string(key));
    if (auto* session = sessions.find(key)) {
      SSL_set_session(ssl, session->get());
      sessions.erase(key);  // a ticket is used once (RFC 8446 C.4); the server sends new ones
    }
  }
};

TlsClient::TlsClient(CertificateCheck check, std::string fingerprint) : impl_(std::make_unique<Impl>()) {
  impl_->check = check;
  impl_->fingerprint = std::move(fingerprint);
  SSL_CTX* context = impl_->context.get();
  SSL_CTX_set_app_data(context, impl_.get());
  SSL_CTX_set_mode(context,
                   SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
  SSL_CTX_sess_set_new_cb(context, &Impl::keep_session);
  if (check == CertificateCheck::name) {
    SSL_CTX_set_default_verify_paths(context);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
  }
  if (check == CertificateCheck::none) {
    SSL_CTX_set_security_level(context, 0);
    SSL_CTX_set_min_proto_version(context, TLS1_VERSION);
  } else {
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  }
}

TlsClient::~TlsClient() {
  SSL_CTX_set_app_data(impl_->context.get(), nullptr);
}

Task<Result<TlsInfo>> TlsClient::handshake(Stream& stream, std::string host, std::uint16_t port, SteadyTime deadline) {
  const std::string key = fmt::format("{}:{}", host, port);
  std::function<void(SSL*)> setup = [this, host, key](SSL* ssl) { impl_->prepare(ssl, host, key); };
  Result<TlsInfo> info = co_await stream.start_tls_client(impl_->context.get(), std::move(setup), deadline);
  SSL* ssl = stream.ssl();
  if (!info) {
    const long verified = ssl == nullptr ? X509_V_OK : SSL_get_verify_result(ssl);
    if (impl_->check == CertificateCheck::name && verified != X509_V_OK) {
      co_return fail(ErrorKind::permanent,
                     fmt::format("certificate of {} not trusted: {}", host, X509_verify_cert_error_string(verified)));
    }
    co_return info;
  }
  if (impl_->check == CertificateCheck::fingerprint && fingerprint_of(ssl) != impl_->fingerprint) {
    impl_->sessions.erase(key);
    co_return fail(ErrorKind::permanent,
                   fmt::format("certificate of {} has fingerprint {}", host, fingerprint_of(ssl)));
  }
  co_return info;
}

}  // namespace greymx::smtp
