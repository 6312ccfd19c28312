#include "smtp/line_reader.hpp"

namespace greymx::smtp {

LineReader::Event LineReader::next(std::string_view& input) {
  const std::size_t end = input.find('\n');
  if (end == std::string_view::npos) {
    skipping_ = skipping_ || input.size() >= max_line;
    if (skipping_) input.remove_prefix(input.ends_with('\r') ? input.size() - 1 : input.size());
    return {Status::need_more, {}};
  }
  std::string_view line = input.substr(0, end);
  input.remove_prefix(end + 1);
  const bool bare_lf = !line.ends_with('\r');
  if (!bare_lf) line.remove_suffix(1);
  const bool skipped = skipping_;
  skipping_ = false;
  if (bare_lf && forbid_bare_lf_) return {Status::bare_lf, {}};
  if (skipped || end + 1 > max_line) return {Status::too_long, {}};
  if (line.find('\r') != std::string_view::npos) return {Status::bare_cr, {}};
  if (line.find('\0') != std::string_view::npos) return {Status::nul, {}};
  return {Status::line, line};
}

}  // namespace greymx::smtp
