// TLS towards a server: what is checked of its certificate, and sessions kept for resumption (RFC 8446 2.2, RFC 5077).
//
// Thread: that of the streams it is used with. May die before the streams.
#pragma once

#include <memory>
#include <string>

#include "smtp/stream.hpp"

namespace greymx::smtp {

enum class CertificateCheck : std::uint8_t {
  none,         // opportunistic: any certificate, and old protocols rather than none (RFC 7435)
  name,         // by the system's authorities, for the host's name or address
  fingerprint,  // SHA-256 of the certificate itself; neither name nor issuer matter
};

class TlsClient {
 public:
  // `fingerprint`: lower-case hex without colons, for CertificateCheck::fingerprint.
  TlsClient(CertificateCheck check, std::string fingerprint);
  ~TlsClient();
  TlsClient(const TlsClient&) = delete;
  TlsClient& operator=(const TlsClient&) = delete;

  // `host`: a name (sent as SNI) or an address; `port` tells apart servers of one host. An error says what was wrong
  // with the certificate; after it the stream is finished.
  Task<Result<TlsInfo>> handshake(Stream& stream, std::string host, std::uint16_t port, SteadyTime deadline);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace greymx::smtp
