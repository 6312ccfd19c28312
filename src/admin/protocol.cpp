#include "admin/protocol.hpp"

#include <openssl/evp.h>

#include "admin/views.hpp"

namespace greymx::admin {

const std::string& Request::arg(const std::string& name) const {
  static const std::string none;
  const auto found = args.find(name);
  return found == args.end() ? none : found->second;
}

std::string to_line(const Request& request) {
  Json json{{"command", request.command}, {"json", request.json}, {"color", request.color}};
  if (!request.select.empty()) json["select"] = request.select.to_json();
  if (!request.args.empty()) json["args"] = request.args;
  return dump(json) + "\n";
}

Result<Request> parse_request(std::string_view line) {
  const auto wrong = [](std::string_view what) {
    return fail(ErrorKind::invalid, "the request is not understood: " + std::string(what));
  };
  const Json json = Json::parse(line, nullptr, false);
  if (!json.is_object()) return wrong("no JSON object");
  Request request;
  for (const auto& [key, value] : json.items()) {
    if (key == "command" && value.is_string()) {
      request.command = value.get<std::string>();
    } else if (key == "json" && value.is_boolean()) {
      request.json = value.get<bool>();
    } else if (key == "color" && value.is_boolean()) {
      request.color = value.get<bool>();
    } else if (key == "select") {
      auto selection = Selection::from_json(value);
      if (!selection) return std::unexpected(selection.error());
      request.select = std::move(*selection);
    } else if (key == "args" && value.is_object() && value.size() <= 16) {
      for (const auto& [name, text] : value.items()) {
        if (!text.is_string()) return wrong(name);
        request.args[name] = text.get<std::string>();
      }
    } else {
      return wrong(key);
    }
  }
  if (request.command.empty()) return wrong("no command");
  return request;
}

namespace reply {

std::string text(std::string_view text) {
  return dump(Json{{"text", text}}) + "\n";
}

std::string file(std::string_view name) {
  return dump(Json{{"file", name}}) + "\n";
}

std::string data(std::span<const char> bytes) {
  std::string encoded((bytes.size() + 2) / 3 * 4 + 1, '\0');
  const auto* from = reinterpret_cast<const unsigned char*>(bytes.data());
  const int length =
      EVP_EncodeBlock(reinterpret_cast<unsigned char*>(encoded.data()), from, static_cast<int>(bytes.size()));
  encoded.resize(static_cast<std::size_t>(length));
  return "{\"data\":\"" + encoded + "\"}\n";
}

std::string progress(std::uint64_t done, std::uint64_t total) {
  return dump(Json{{"done", done}, {"total", total}}) + "\n";
}

std::string end(const Ending& ending) {
  Json json{{"exit", ending.exit}};
  if (!ending.error.empty()) json["error"] = ending.error;
  return dump(json) + "\n";
}

}  // namespace reply

std::string decode_base64(std::string_view text) {
  if (text.empty() || text.size() % 4 != 0) return {};
  std::string bytes(text.size() / 4 * 3, '\0');
  const auto* from = reinterpret_cast<const unsigned char*>(text.data());
  const int length =
      EVP_DecodeBlock(reinterpret_cast<unsigned char*>(bytes.data()), from, static_cast<int>(text.size()));
  if (length < 0) return {};
  // EVP_DecodeBlock counts the padding as bytes.
  const std::size_t padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
  bytes.resize(static_cast<std::size_t>(length) - padding);
  return bytes;
}

}  // namespace greymx::admin
