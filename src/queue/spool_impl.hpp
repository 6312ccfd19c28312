// The spool's parts put together; spool.hpp is the contract.
#pragma once

#include "queue/compact.hpp"
#include "queue/incoming.hpp"

namespace greymx::queue {

class SpoolImpl final : public Spool {
 public:
  // Without threads (tests) nothing is written until commit() and nothing tidied until maintain() is called.
  static Result<std::unique_ptr<SpoolImpl>> open(SpoolSettings settings, Files& files, const Clock& clock, Log& log,
                                                 Metrics& metrics, Alerts& alerts, bool threads);
  SpoolImpl(SpoolSettings settings, Files& files, const Clock& clock, Log& log, Metrics& metrics, Alerts& alerts,
            bool threads);
  ~SpoolImpl() override;

  bool commit() { return writer_.commit(); }
  bool maintain();  // true: there is more to do at once

  void stop() override;
  void limit(std::uint64_t min_free_space, std::uint64_t buffer_memory) override;
  bool has_room(std::uint64_t size) const override;
  std::unique_ptr<Incoming> begin() override;
  void on_work(std::function<void(std::string domain)> callback) override;
  std::vector<DomainSummary> domains() const override;
  std::optional<QueueId> take(const std::string& domain, WallTime now, Pick pick) override;
  bool claim(QueueId id, const std::string& domain) override;
  void release(QueueId id, const std::string& domain) override;
  Task<Result<Loaded>> load(QueueId id, std::uint64_t whole_up_to) override;
  void update(QueueId id, std::vector<std::pair<std::size_t, RecipientState>> changes) override;
  bool contains(QueueId id) const override;
  bool active(QueueId id) const override;
  bool held(QueueId id) const override;
  Result<> hold(QueueId id, std::string reason) override;
  Result<> release_hold(QueueId id) override;
  Result<> remove(QueueId id) override;
  Result<> make_due(QueueId id, WallTime when) override;
  void make_domain_due(const std::string& domain, WallTime beyond) override;
  Totals totals() const override;
  std::vector<QueueId> ids(QueueId after, std::size_t limit) const override;
  QueueId newest() const override;
  Result<Message> peek(QueueId id) override;

 private:
  Result<> recover_all();
  void start();
  void background();
  void nudge();
  bool pause(std::uint64_t bytes);
  void flush();
  void look_at_space();
  void remove_ended_files();
  void cut_failed();
  bool retire_one();
  void give_back_memory();
  Result<> edit_existing(QueueId id, Edit edit, bool wakes);
  Result<Loaded> read(QueueId id, bool with_content, std::uint64_t whole_up_to);
  Result<Loaded> read_at(QueueId id, const Snapshot& snapshot, bool with_content, std::uint64_t whole_up_to);
  Result<> read_own_file(const StoredMessage& stored, std::uint64_t whole_up_to, Loaded& loaded);
  Error damaged(QueueId id, const Snapshot& snapshot, Error error);
  void tell(const std::string& domain);

  const SpoolSettings settings_;
  Files& files_;
  const Clock& clock_;
  Log& log_;
  Metrics& metrics_;
  const bool threads_;
  std::unique_ptr<File> lock_;
  QueueIdSource ids_;
  Books books_;
  SegmentStore store_;
  Quarantine quarantine_;
  Writer writer_;
  Compactor compactor_;
  Space space_;
  SpaceWarning space_warning_;       // background thread
  std::uint64_t most_messages_ = 0;  // since memory was given back; background thread
  asio::thread_pool pool_{4};        // blocking reads, and bodies in files of their own
  IntakeParts intake_{settings_, files_, clock_, space_, writer_, pool_};
  std::function<void(std::string)> on_work_ = [](const std::string&) {};
  std::mutex background_mutex_;  // of stopping_ and nudged_
  std::condition_variable wake_background_;
  bool stopping_ = false;
  bool nudged_ = false;
  std::thread writing_thread_, background_thread_;
};

}  // namespace greymx::queue
