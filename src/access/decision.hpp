// One recipient's way through the ordered checks: used by sessions, and with a trace by `greymx explain`.
#pragma once

#include <functional>
#include <memory>

#include "access/access.hpp"
#include "access/checks.hpp"
#include "access/eventual.hpp"
#include "access/recipient_memory.hpp"
#include "access/tables.hpp"

namespace greymx::access {

// What decisions work with; sessions that have begun keep theirs over a reload.
struct Setup {
  std::shared_ptr<const Shared> shared;
  std::shared_ptr<dnsbl::Lists> lists;  // may be null

  const config::Config& config() const { return *shared->config; }
  // How long the lookups of one step may take together: 10 s at most.
  std::chrono::milliseconds patience() const;
};

// Does SPF let this client, and not everybody, use the sender's domain? `denied`: it says fail.
enum class Authority : std::uint8_t { unknown, no, denied, yes };

// Lookups begin as early as their input is known and are awaited where it is needed.
struct ClientLookups {
  Eventual<dns::ClientName> name;
  Eventual<std::vector<dnsbl::Score>> scores;       // of the address
  Eventual<std::vector<dnsbl::Score>> name_scores;  // begun once the name is known
};
struct SenderLookups {
  Eventual<MailDomain> domain;
  Eventual<std::vector<dnsbl::Score>> scores;
  Eventual<Authority> authority;
  bool authority_sought = false;
};

struct Evidence {
  std::shared_ptr<ClientLookups> client;
  std::shared_ptr<SenderLookups> sender;
  std::function<void()> seek_authority;  // SPF is dear: begun only for who has got past the block lists
};

class Decision {
 public:
  // `trace`: a dry run that goes on after the decision and notes every check; nothing is stored.
  Decision(const Setup& setup, Gate& gate, Evidence evidence, Facts facts, Mailbox recipient, std::vector<Step>* trace);
  Task<Verdict> run();
  // The greylist alone, at DATA: for those with a null sender whose greylisting run() has postponed.
  Task<Verdict> run_greylist();
  bool postponed_greylist() const { return postponed_; }

 private:
  const Shared& shared() const { return *setup_.shared; }
  bool enter(std::string_view check, const std::string& input, bool applies, const char* why_not);
  void step(std::string_view check, const std::string& input, const char* result, std::string_view detail);
  void conclude(std::string_view check, const std::string& input, config::CheckMode mode, const Findings& finding,
                const std::string& detail);
  void check(std::string_view name, const std::string& input, config::CheckMode mode, const Findings& finding);
  void access_file(std::string_view name, const std::string& input, const std::string& path, std::string_view part,
                   const std::function<std::optional<Rule>(const AccessFile&)>& find);
  void apply(std::string_view name, const std::string& input, std::string_view part, const Rule& rule);
  void listed_recipient();
  Task<> sender_domain();
  Task<> remembered_recipient();
  Task<> dnsbl();
  Task<> greylist();
  Task<> callout();
  void unknown_while_down(std::string_view check);
  Verdict finish();

  const Setup& setup_;
  Gate& gate_;
  Evidence evidence_;
  Facts facts_;
  Mailbox recipient_;  // as given, for replies
  std::string address_;
  Mailbox plain_;  // without needless quotes, for tables
  std::vector<Step>* trace_;
  SteadyTime deadline_;
  const config::Domain* domain_ = nullptr;  // null: not ours
  bool exempt_ = false;                     // trusted, bare Postmaster (RFC 5321 4.5.1), or an access file said OK
  bool allow_listed_ = false;
  bool at_data_ = false;
  bool postponed_ = false;     // the greylist, to DATA
  bool settled_ = false;       // recipient validity is decided: no callout
  bool memory_fails_ = false;  // the recipient may be a known one all the same
  Verdict verdict_;
  std::optional<Reply> pending_;  // the first defer_if_permit
  std::string pending_check_;
};

}  // namespace greymx::access
