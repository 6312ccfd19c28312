#include "relay/memory.hpp"

#include <nlohmann/json.hpp>

#include "base/files.hpp"

namespace greymx::relay {

namespace {

using nlohmann::json;

std::int64_t number(WallTime time) {
  return time.time_since_epoch().count();
}
WallTime time_of(const json& value) {
  return WallTime(std::chrono::microseconds(value.get<std::int64_t>()));
}

Health health_of(const std::string& text) {
  if (text == "down") return Health::down;
  return text == "suspect" ? Health::suspect : Health::up;
}

Remembered remembered(const json& entry) {
  Remembered result;
  result.key = entry.value("key", "");
  result.health = health_of(entry.at("health").get<std::string>());
  result.since = time_of(entry.at("since"));
  result.reason = entry.at("reason").get<std::string>();
  result.on_trial = entry.at("on_trial").get<bool>();
  Downtime::Spans spans;
  for (const json& span : entry.at("downtime")) spans.emplace_back(time_of(span.at(0)), time_of(span.at(1)));
  result.downtime.restore(std::move(spans));
  for (const json& host : entry.at("hosts")) {
    const auto endpoint = Endpoint::parse(host.at(1).get<std::string>());
    if (endpoint) result.hosts.push_back({host.at(0).get<std::string>(), *endpoint});
  }
  result.size_limit = entry.value("size_limit", std::uint64_t{0});
  return result;
}

}  // namespace

std::string to_json(const Memory& memory) {
  json all = json::object();
  for (const auto& [name, one] : memory) {
    json downtime = json::array();
    for (const auto& [begin, end] : one.downtime.spans()) downtime.push_back({number(begin), number(end)});
    json hosts = json::array();
    for (const Host& host : one.hosts) hosts.push_back({host.name, host.endpoint.to_string()});
    all[name] = {{"key", one.key},       {"health", to_string(one.health)}, {"since", number(one.since)},
                 {"reason", one.reason}, {"on_trial", one.on_trial},        {"downtime", downtime},
                 {"hosts", hosts},       {"size_limit", one.size_limit}};
  }
  return all.dump(1, ' ', false, json::error_handler_t::replace) + "\n";
}

Result<Memory> memory_from_json(const std::string& text) {
  try {
    Memory memory;
    const auto all = json::parse(text).get<json::object_t>();
    for (const auto& [name, entry] : all) memory[name] = remembered(entry);
    return memory;
  } catch (const json::exception& error) {
    return fail(ErrorKind::invalid, error.what());
  }
}

Result<Memory> load_memory(const std::string& path) {
  const Result<std::string> text = read_file(path, 64UL << 20);
  if (!text) return std::unexpected(text.error());
  return memory_from_json(*text);
}

}  // namespace greymx::relay
