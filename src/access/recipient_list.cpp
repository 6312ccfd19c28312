#include "access/recipient_list.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "access/checks.hpp"
#include "base/text.hpp"

namespace greymx::access {

namespace {

constexpr std::size_t max_line = 1024;       // RFC 5321 4.5.3.1.3 allows 256 for a path
constexpr std::size_t max_text = 1UL << 31;  // offsets have 32 bits

}  // namespace

Result<std::shared_ptr<const RecipientList>> RecipientList::read(const std::string& path, const config::Domain& domain,
                                                                 Others* others) {
  std::shared_ptr<RecipientList> list(new RecipientList);
  std::error_code unknown;
  const std::filesystem::file_status status = std::filesystem::status(path, unknown);
  if (std::filesystem::is_directory(status)) return fail_errno(EISDIR, path);
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
    return fail(ErrorKind::invalid, path + " is not a regular file");  // a FIFO would wait for somebody who writes
  }
  std::ifstream file(path);
  if (!file) return fail_errno(errno, path);
  const auto bytes = std::filesystem::file_size(path, unknown);
  // Room for all at once: what stays unused is never touched, and growing would need twice as much for a moment.
  if (!unknown) list->text_.reserve(std::min<std::size_t>(bytes, max_text));
  std::string line, name;
  std::size_t number = 0;
  while (std::getline(file, line)) {
    if (++number == 1 && line.starts_with(byte_order_mark)) line.erase(0, byte_order_mark.size());
    if (line.size() > max_line || list->text_.size() > max_text) {
      return fail(ErrorKind::invalid, path + ": this is no list of recipients (a line or all of it is too long)");
    }
    if (list->add(line, domain, name) || others == nullptr) continue;
    Skipped& skipped = (*others)[name];
    if (skipped.lines++ == 0) skipped.first_line = number;
  }
  if (file.bad()) return fail_errno(EIO, path);
  std::vector<std::uint32_t>& starts = list->starts_;
  const auto compare = [&](auto a, auto b) { return std::strcmp(list->at(a), list->at(b)); };
  std::sort(starts.begin(), starts.end(), [&](auto a, auto b) { return compare(a, b) < 0; });
  const auto same = [&](auto a, auto b) { return compare(a, b) == 0; };
  starts.erase(std::unique(starts.begin(), starts.end(), same), starts.end());
  starts.shrink_to_fit();
  return list;
}

bool RecipientList::add(std::string_view line, const config::Domain& domain, std::string& name) {
  constexpr std::string_view blank = " \t\r";
  const std::size_t begin = line.find_first_not_of(blank);
  if (begin == std::string_view::npos || line[begin] == '#') return true;
  line = line.substr(begin);
  if (line.find('\0') != std::string_view::npos) return false;  // what follows would be lost
  const Mailbox mailbox = unquoted(Mailbox::split(line.substr(0, end_of_word(line))));
  std::string entry = to_lower(mailbox.local);
  if (!mailbox.domain.empty()) {
    name = canonical_domain(mailbox.domain).value_or("");
    const bool ours = domain.wildcard ? name != domain.name && is_in_domain(name, domain.name) : name == domain.name;
    if (!ours) return false;
    if (domain.wildcard || entry.empty()) entry += "@" + name;
  }
  starts_.push_back(static_cast<std::uint32_t>(text_.size()));
  text_ += entry;
  text_ += '\0';
  return true;
}

bool RecipientList::has(const std::string& entry) const {
  const auto less = [&](std::uint32_t start, const char* wanted) { return std::strcmp(at(start), wanted) < 0; };
  const auto it = std::lower_bound(starts_.begin(), starts_.end(), entry.c_str(), less);
  return it != starts_.end() && at(*it) == entry;
}

bool RecipientList::contains(const Mailbox& recipient) const {
  const std::string local = to_lower(recipient.local);
  const std::string domain = canonical_domain(recipient.domain).value_or("");
  return has(local) || has("@" + domain) || has(local + "@" + domain);
}

}  // namespace greymx::access
