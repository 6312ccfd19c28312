// Message content out of the stream: DATA (dot-stuffed, ended by CRLF.CRLF) and BDAT chunks (counted). Pure; fuzzed.
//
// What comes out has only CRLF as line end and no other CR or LF, whatever went in: a bare LF becomes CRLF, a bare CR
// a space; NUL and everything else stays. So no sequence of bytes can later look like an end of data to anybody
// (SMTP smuggling). Under smtp.bare_lf = "reject" the same is done, and bare_lf() or bare_cr() tell that the message
// must be refused. Only <CRLF>.<CRLF> ends DATA, and dots are taken away only behind a true CRLF (RFC 5321 2.3.8,
// 4.1.1.4, 4.5.2). The caller goes on to the end even when the message is refused already.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace greymx::smtp {

// Looks at the header of normalised content as it goes by: counts Received lines (RFC 5321 6.3), finds the Message-ID.
class HeaderScan {
 public:
  void feed(std::string_view bytes);
  unsigned received() const { return received_; }
  const std::string& message_id() const { return message_id_; }  // "<…>", printable(); empty if there is none

 private:
  void end_of_line();

  std::string line_;  // its beginning
  std::string message_id_;
  unsigned received_ = 0;
  bool in_message_id_ = false;
  bool done_ = false;
};

class BodyDecoder {
 public:
  enum class Status : std::uint8_t { more, end };

  // DATA: takes from the front of `input` up to and with the end of data, appends content to `out`.
  Status decode_data(std::string_view& input, std::string& out);

  // BDAT: all of `input` is content; a line end may be split over chunks. finish_chunks() after the last one: the
  // last line gets its end if it has none.
  void decode_chunk(std::string_view input, std::string& out);
  void finish_chunks(std::string& out);

  std::uint64_t size() const { return size_; }  // octets given out
  bool bare_lf() const { return bare_lf_; }
  bool bare_cr() const { return bare_cr_; }
  unsigned received() const { return headers_.received(); }
  const std::string& message_id() const { return headers_.message_id(); }

 private:
  // Where we are in a line. `bare_lf`: as `text`, but a line has just been ended. `dot` and `dot_cr`: only in DATA,
  // behind a dot that began a line.
  enum class State : std::uint8_t { line_start, text, bare_lf, cr, dot, dot_cr };

  Status decode(std::string_view& input, std::string& out, bool dots);
  void take_lines(std::string_view& input, std::string& out, bool dots);
  Status step(char c, std::string& out, bool dots);
  void count(std::string_view added);

  State state_ = State::line_start;
  std::uint64_t size_ = 0;
  bool bare_lf_ = false;
  bool bare_cr_ = false;
  HeaderScan headers_;
};

}  // namespace greymx::smtp
