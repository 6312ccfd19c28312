// Content in DATA and BDAT: any split gives the same, nothing but CRLF ends a line of it, and it can be sent again with
// dots stuffed without ending early. The first byte says how the input is split.
#include <cstdlib>
#include <string>

#include "smtp/body_decoder.hpp"

using namespace greymx::smtp;

namespace {

void require(bool what) {
  if (!what) std::abort();
}

struct Result {
  std::string content;
  std::size_t taken = 0;
  bool ended = false;
  bool bare_lf = false;
  bool bare_cr = false;
  unsigned received = 0;
  std::string message_id;
  bool operator==(const Result&) const = default;
};

Result finish(const BodyDecoder& decoder, Result result) {
  require(decoder.size() == result.content.size());
  result.bare_lf = decoder.bare_lf();
  result.bare_cr = decoder.bare_cr();
  result.received = decoder.received();
  result.message_id = decoder.message_id();
  return result;
}

Result data(std::string_view input, std::size_t step) {
  BodyDecoder decoder;
  Result result;
  while (!input.empty() && !result.ended) {
    std::string_view piece = input.substr(0, step);
    const std::size_t before = piece.size();
    result.ended = decoder.decode_data(piece, result.content) == BodyDecoder::Status::end;
    require(result.ended || piece.empty());
    result.taken += before - piece.size();
    input.remove_prefix(before - piece.size());
  }
  return finish(decoder, result);
}

Result chunks(std::string_view input, std::size_t step) {
  BodyDecoder decoder;
  Result result;
  for (; !input.empty(); input.remove_prefix(std::min(step, input.size()))) {
    decoder.decode_chunk(input.substr(0, step), result.content);
  }
  decoder.finish_chunks(result.content);
  return finish(decoder, result);
}

void check_lines(std::string_view content) {
  for (std::size_t i = 0; i < content.size(); ++i) {
    if (content[i] == '\r') require(content.substr(i, 2) == "\r\n");
    if (content[i] == '\n') require(i > 0 && content[i - 1] == '\r');
  }
}

std::string stuffed(std::string_view content) {
  std::string result;
  for (std::size_t i = 0; i < content.size(); ++i) {
    if (content[i] == '.' && (i == 0 || content[i - 1] == '\n')) result += '.';
    result += content[i];
  }
  return result + ".\r\n";
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  if (size == 0) return 0;
  const std::size_t step = 1 + bytes[0] % 16;
  const std::string_view input(reinterpret_cast<const char*>(bytes) + 1, size - 1);
  const Result whole = data(input, input.size());
  require(data(input, step) == whole);
  check_lines(whole.content);
  // The end is the first CRLF.CRLF, the beginning counting as behind a CRLF.
  const std::string framed = "\r\n" + std::string(input);
  const std::size_t end = framed.find("\r\n.\r\n");
  require(whole.ended == (end != std::string::npos));
  if (whole.ended) require(whole.taken == end + 3);

  const Result chunked = chunks(input, input.size());
  require(chunks(input, step) == chunked);
  check_lines(chunked.content);
  require(chunked.content.empty() || chunked.content.ends_with("\r\n"));
  const std::string sent = stuffed(chunked.content);
  const Result again = data(sent, sent.size());
  require(again.ended && again.taken == sent.size() && again.content == chunked.content);
  require(!again.bare_lf && !again.bare_cr);
  return 0;
}
