// Self-signed certificates for TLS tests.
#pragma once

#include <openssl/ssl.h>

#include <chrono>
#include <memory>
#include <string>

namespace greymx::test {

struct Certificate {
  std::string certificate;  // PEM
  std::string key;          // PEM
};
enum class KeyType { ecdsa, rsa };

// For DNS name `name`, valid from yesterday on for `valid`, which may be negative.
Certificate make_certificate(const std::string& name, KeyType type = KeyType::ecdsa,
                             std::chrono::hours valid = std::chrono::hours(24 * 30));

using Context = std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)>;
Context server_context(const std::string& name);  // with such a certificate

}  // namespace greymx::test
