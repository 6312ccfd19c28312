#include "smtp/tls_server.hpp"

#include <fmt/format.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <ctime>
#include <vector>

namespace greymx::smtp {

namespace {

constexpr std::size_t max_pem = 1UL << 20;
constexpr auto soon = std::chrono::days(14);  // when the admin is told
constexpr auto warn_again = std::chrono::hours(24);

struct Free {
  void operator()(BIO* bio) const { BIO_free(bio); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
  void operator()(GENERAL_NAMES* names) const { GENERAL_NAMES_free(names); }
};
using Certificate = std::unique_ptr<X509, Free>;
using Key = std::unique_ptr<EVP_PKEY, Free>;

// A leaf with its key, and what its issuers are.
struct Chain {
  Certificate leaf;
  Key key;
  std::vector<Certificate> issuers;
};

std::unique_ptr<BIO, Free> memory(const std::string& text) {
  return std::unique_ptr<BIO, Free>(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

std::vector<Certificate> read_certificates(const std::string& pem) {
  std::vector<Certificate> all;
  const auto bio = memory(pem);
  while (X509* certificate = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)) all.emplace_back(certificate);
  ERR_clear_error();
  return all;
}

std::vector<Key> read_keys(const std::string& pem) {
  std::vector<Key> all;
  const auto bio = memory(pem);
  const auto no_password = [](char*, int, int, void*) { return 0; };  // never ask on the terminal
  while (EVP_PKEY* key = PEM_read_bio_PrivateKey(bio.get(), nullptr, no_password, nullptr)) all.emplace_back(key);
  ERR_clear_error();
  return all;
}

// A certificate that fits one of the keys begins a chain; those behind it are its issuers.
Result<std::vector<Chain>> read_chains(const config::Tls& tls) {
  const auto certificate_pem = read_file(tls.certificate, max_pem);
  if (!certificate_pem) return std::unexpected(certificate_pem.error());
  const auto key_pem = read_file(tls.key, max_pem);
  if (!key_pem) return std::unexpected(key_pem.error());
  std::vector<Certificate> certificates = read_certificates(*certificate_pem);
  std::vector<Key> keys = read_keys(*key_pem);
  if (certificates.empty()) return fail(ErrorKind::invalid, tls.certificate + ": no certificate in PEM form in it");
  if (keys.empty()) return fail(ErrorKind::invalid, tls.key + ": no unencrypted private key in PEM form in it");
  std::vector<Chain> chains;
  for (Certificate& certificate : certificates) {
    const auto fits = [&](const Key& key) { return key && X509_check_private_key(certificate.get(), key.get()) == 1; };
    const auto key = std::find_if(keys.begin(), keys.end(), fits);
    if (key != keys.end()) {
      chains.push_back({std::move(certificate), std::move(*key), {}});
    } else if (!chains.empty()) {
      chains.back().issuers.push_back(std::move(certificate));
    }
  }
  ERR_clear_error();
  if (chains.empty()) {
    return fail(ErrorKind::invalid, fmt::format("{}: no key for the certificate in {}", tls.key, tls.certificate));
  }
  return chains;
}

bool same_names(X509* a, X509* b) {
  const auto names = [](X509* certificate) {
    const std::unique_ptr<GENERAL_NAMES, Free> list(
        static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)));
    std::vector<std::string> result;
    for (int i = 0; i < sk_GENERAL_NAME_num(list.get()); ++i) {
      const GENERAL_NAME* name = sk_GENERAL_NAME_value(list.get(), i);
      if (name->type != GEN_DNS) continue;
      const auto* text = reinterpret_cast<const char*>(ASN1_STRING_get0_data(name->d.dNSName));
      result.emplace_back(text, static_cast<std::size_t>(ASN1_STRING_length(name->d.dNSName)));
    }
    std::sort(result.begin(), result.end());
    return result;
  };
  return names(a) == names(b);
}

std::string openssl_error() {
  const char* reason = ERR_reason_error_string(ERR_peek_last_error());
  ERR_clear_error();
  return reason == nullptr ? "unknown error" : reason;
}

WallTime expiry_of(const X509* certificate) {
  std::tm time{};
  ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &time);
  return WallTime(std::chrono::seconds(::timegm(&time)));
}

// Empty unless it expires soon.
std::string warning_about(const config::Tls& tls, WallTime expiry, WallTime now) {
  if (expiry - now >= soon) return {};
  const auto left = std::chrono::floor<std::chrono::seconds>(expiry - now);
  return tls.certificate + (left.count() <= 0 ? ": it has expired" : ": it expires in " + human_duration(left));
}

}  // namespace

// One context a set of names; the first serves whoever names nothing that we know.
struct TlsServer::Pair {
  std::vector<std::shared_ptr<SSL_CTX>> contexts;
  WallTime expiry = WallTime::max();

  static Result<std::shared_ptr<Pair>> read(const config::Tls& tls);
  Result<> add(const Chain& chain);
  static std::shared_ptr<SSL_CTX> new_context();
  static int choose(SSL* ssl, int* alert, void* self);
};

std::shared_ptr<SSL_CTX> TlsServer::Pair::new_context() {
  std::shared_ptr<SSL_CTX> made(SSL_CTX_new(TLS_server_method()), SSL_CTX_free);
  SSL_CTX* context = made.get();
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE |
                                   SSL_OP_PRIORITIZE_CHACHA);
  SSL_CTX_set_cipher_list(context, "ECDHE+AESGCM:ECDHE+CHACHA20");
  SSL_CTX_set_mode(context,
                   SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_read_ahead(context, 1);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  return made;
}

Result<> TlsServer::Pair::add(const Chain& chain) {
  const auto sits_with = [&](const std::shared_ptr<SSL_CTX>& context) {
    return same_names(SSL_CTX_get0_certificate(context.get()), chain.leaf.get());
  };
  const auto found = std::find_if(contexts.begin(), contexts.end(), sits_with);
  SSL_CTX* context = found == contexts.end() ? contexts.emplace_back(new_context()).get() : found->get();
  STACK_OF(X509)* issuers = sk_X509_new_null();
  for (const Certificate& issuer : chain.issuers) sk_X509_push(issuers, issuer.get());
  const int used = SSL_CTX_use_cert_and_key(context, chain.leaf.get(), chain.key.get(), issuers, 1);
  sk_X509_free(issuers);
  if (used != 1) return fail(ErrorKind::invalid, "the certificate cannot be used: " + openssl_error());
  expiry = std::min(expiry, expiry_of(chain.leaf.get()));
  return {};
}

// SNI: the context whose certificate is for the name that the client asks for.
int TlsServer::Pair::choose(SSL* ssl, int*, void* self) {
  const char* name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
  if (name == nullptr) return SSL_TLSEXT_ERR_NOACK;
  for (const auto& context : static_cast<const Pair*>(self)->contexts) {
    if (X509_check_host(SSL_CTX_get0_certificate(context.get()), name, 0, 0, nullptr) != 1) continue;
    SSL_set_SSL_CTX(ssl, context.get());
    return SSL_TLSEXT_ERR_OK;
  }
  return SSL_TLSEXT_ERR_NOACK;
}

Result<std::shared_ptr<TlsServer::Pair>> TlsServer::Pair::read(const config::Tls& tls) {
  const auto chains = read_chains(tls);
  if (!chains) return std::unexpected(chains.error());
  auto pair = std::make_shared<Pair>();
  for (const Chain& chain : *chains) {
    if (const Result<> added = pair->add(chain); !added) return std::unexpected(added.error());
  }
  SSL_CTX_set_tlsext_servername_callback(pair->contexts.front().get(), &Pair::choose);
  SSL_CTX_set_tlsext_servername_arg(pair->contexts.front().get(), pair.get());
  return pair;
}

TlsServer::TlsServer(const Clock& clock, Log& log, Metrics& metrics, Alerts& alerts)
    : clock_(clock), log_(log), metrics_(metrics), alerts_(alerts) {}
TlsServer::~TlsServer() = default;

Result<std::string> TlsServer::check(const config::Tls& tls) {
  if (tls.certificate.empty()) return {};
  const auto pair = Pair::read(tls);
  if (!pair) return std::unexpected(pair.error());
  return warning_about(tls, (*pair)->expiry, SystemClock().now());
}

Result<> TlsServer::load(const config::Tls& tls) {
  const bool said = !seen_.empty() && tls_.certificate.empty();
  tls_ = tls;
  seen_ = {FileStamp::of(tls.certificate), FileStamp::of(tls.key)};
  if (tls.certificate.empty()) {
    if (!said) log_.info("tls", "STARTTLS is not offered: tls.certificate is not set");
    const std::scoped_lock lock(mutex_);
    pair_.reset();
    return {};
  }
  auto pair = Pair::read(tls);
  if (!pair) {
    alerts_.raise("TLS certificate cannot be used",
                  fmt::format("{}. {}", pair.error().text,
                              context() ? "The previous one stays in service." : "STARTTLS is not offered."));
    return std::unexpected(pair.error());
  }
  {
    const std::scoped_lock lock(mutex_);
    pair_ = std::move(*pair);
  }
  next_warning_ = clock_.steady();
  show_expiry();
  return {};
}

void TlsServer::refresh() {
  if (tls_.certificate.empty()) return;
  // A pair is two files: what differs from what was read must have been still since the last look.
  const std::vector seen = {FileStamp::of(tls_.certificate), FileStamp::of(tls_.key)};
  const bool still = seen == std::exchange(last_look_, seen);
  if (seen != seen_ && still && load(tls_)) log_.info("tls", "certificate read again from " + tls_.certificate);
  show_expiry();
}

void TlsServer::show_expiry() {
  const auto end = expiry();
  if (!end) return;
  const WallTime now = clock_.now();
  metrics_.set("certificate_expiry_seconds", std::chrono::duration<double>(*end - now).count());
  const std::string warning = warning_about(tls_, *end, now);
  if (warning.empty() || clock_.steady() < next_warning_) return;
  const bool expired = *end <= now;
  alerts_.raise(expired ? "TLS certificate has expired" : "TLS certificate expires soon",
                warning + ". Renew it; it is read again by itself.");
  next_warning_ = clock_.steady() + (expired ? warn_again : std::min<WallTime::duration>(warn_again, *end - now));
}

std::shared_ptr<SSL_CTX> TlsServer::context() const {
  const std::scoped_lock lock(mutex_);
  if (!pair_) return nullptr;
  return {pair_, pair_->contexts.front().get()};
}

std::optional<WallTime> TlsServer::expiry() const {
  const std::scoped_lock lock(mutex_);
  if (!pair_) return std::nullopt;
  return pair_->expiry;
}

}  // namespace greymx::smtp
