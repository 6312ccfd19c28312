#include "admin/select.hpp"

#include <algorithm>

#include "base/mailbox.hpp"
#include "relay/destination.hpp"

namespace greymx::admin {

namespace {

// `domain`: under which `address` is selected.
bool address_matches(std::string_view pattern, const std::string& address, const std::string& domain) {
  if (pattern == "<>") pattern = {};
  if (!pattern.starts_with('@')) return Mailbox::split(pattern).key() == Mailbox::split(address).key();
  return domain_key(pattern.substr(1)) == domain;
}

template <class Test>
bool any_waiting(const queue::Message& message, Test test) {
  for (std::size_t i = 0; i < message.envelope.recipients.size() && i < message.state.recipients.size(); ++i) {
    if (message.state.recipients[i].status != queue::RecipientStatus::done &&
        test(message.envelope.recipients[i].address)) {
      return true;
    }
  }
  return false;
}

}  // namespace

bool Selection::matches(const queue::Message& message, const config::Config& config, WallTime now) const {
  if (older && now - message.id.time() < *older) return false;
  const std::string& sender = message.envelope.reverse_path;
  if (from && !address_matches(*from, sender, queue::schedule_domain(sender))) return false;
  const auto domain_of = [&](const std::string& recipient) {
    return relay::shown_domain(config, queue::schedule_domain(recipient));
  };
  const auto is_to = [&](const std::string& address) { return address_matches(*to, address, domain_of(address)); };
  if (to && !any_waiting(message, is_to)) return false;
  if (!domain) return true;
  const bool below = domain->starts_with("*.");  // as greymx domains names a wildcard
  const std::string_view given = std::string_view(*domain).substr(below ? 2 : 0);
  const std::string wanted = domain_key(given);
  return any_waiting(message, [&](const std::string& address) {
    const std::string name = domain_of(address);
    return is_in_domain(name, wanted) && !(below && name == wanted);
  });
}

Json Selection::to_json() const {
  Json json = Json::object();
  for (const QueueId id : ids) json["ids"].push_back(id.to_string());
  if (all) json["all"] = true;
  if (from) json["from"] = *from;
  if (to) json["to"] = *to;
  if (domain) json["domain"] = *domain;
  if (older) json["older"] = older->count();
  return json;
}

Result<Selection> Selection::from_json(const Json& json) {
  Selection selection;
  const auto wrong = [](std::string_view what) {
    return fail(ErrorKind::invalid, "the selection is not understood: " + std::string(what));
  };
  if (!json.is_object()) return wrong("no object");
  for (const auto& [key, value] : json.items()) {
    if (key == "ids" && value.is_array()) {
      for (const Json& text : value) {
        const auto id = text.is_string() ? parse_shown_id(text.get_ref<const std::string&>()) : std::nullopt;
        if (!id) return wrong("a queue ID");
        selection.ids.push_back(*id);
      }
    } else if (key == "all" && value.is_boolean()) {
      selection.all = value.get<bool>();
    } else if (key == "from" && value.is_string()) {
      selection.from = value.get<std::string>();
    } else if (key == "to" && value.is_string()) {
      selection.to = value.get<std::string>();
    } else if (key == "domain" && value.is_string()) {
      selection.domain = value.get<std::string>();
    } else if (key == "older" && value.is_number_integer() && value >= 0 && value <= 100LL * 366 * 86400) {
      selection.older = std::chrono::seconds(value.get<std::int64_t>());
    } else {
      return wrong(key);
    }
  }
  std::ranges::sort(selection.ids);
  const auto repeated = std::ranges::unique(selection.ids);
  selection.ids.erase(repeated.begin(), repeated.end());
  return selection;
}

std::optional<QueueId> parse_shown_id(std::string_view text) {
  if (!text.empty() && (text.back() == '!' || text.back() == '*')) text.remove_suffix(1);
  return QueueId::parse(text);
}

}  // namespace greymx::admin
