// Dialogues: SMTP sessions as text files, each a test. One instruction a line; the first blank after the word ends it.
// Every reply must be expected: those left over when a connection ends, or the file, are an error.
//
//   # comment
//   config KEY = VALUE    a line of relay.conf, before all else; example.com is ours, greylisting off, if not said
//   file NAME TEXT        a line of a file that the config names
//   tls                   there is a certificate
//   disk BYTES|broken     the spool's disk is that large, or fails, from now on
//   dns RECORD            as in support/scripted_resolver.hpp: "x.test A 192.0.2.1", "x.test MX SERVFAIL"
//   delay NAME TIME       answers for NAME take that long (of the dialogue's clock)
//   primary up|down       primary size N    primary address IP    primary takes|refuses ADDRESS
//   client IP [NAME]      a new connection from there, the former one being closed; NAME is its confirmed name.
//                         Without this line: 192.0.2.10, mail.example.org
//   C: LINE               the client says LINE and CRLF; \r \n \0 \t \\ \{ \xNN stand for bytes; "{x*100}" repeats x
//   C> BYTES              the same without CRLF
//   S: LINE               the server's next reply. "250 x" skips lines of a multi-line reply before the last, "250-x"
//                         is one of those; "*" stands for anything; a pattern of codes only ("250 2.1.0") is enough
//   closed                the server has hung up, without another word
//   close                 the client hangs up
//   shutdown              the server is told to end
//   clock +TIME           10s, 5m, 1h30m, 2d
//   queue N [PATTERN]     so many messages are queued, the last described by PATTERN ("*" as above): see describe()
//   content PATTERN       of the last message, "\r\n" for line ends
//   log REGEX             a line of the log so far;  nolog REGEX: none
//   alert TEXT            was raised
#pragma once

#include <string>

namespace greymx::test {

// Fails the running Catch test at the first line that is not as expected, with file and line.
void run_dialogue(const std::string& path);

}  // namespace greymx::test
