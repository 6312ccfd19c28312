// What a spool promised so far, beside the spool itself: after any crash and any fault the two are compared.
#pragma once

#include <random>

#include "fixture.hpp"

namespace greymx::test {

class Model {
 public:
  explicit Model(TestSpool& spool) : t_(spool) {}

  void accept(const std::vector<std::string>& recipients, std::size_t size) {
    ++count_;
    const std::string content =
        "message " + std::to_string(count_) + std::string(size, static_cast<char>('a' + count_ % 26));
    auto incoming = t_.spool->begin();
    const QueueId id = incoming->id();
    attempted_[id] = content;
    const auto written = t_.wait(incoming->write({content.begin(), content.end()}));
    if (!written) return;
    if (!t_.wait(incoming->commit(envelope_to(recipients)))) return;
    MessageState state;
    for (std::size_t i = 0; i < recipients.size(); ++i) {
      state.recipients.emplace_back().next_attempt = t_.clock.now();
    }
    known_[id] = {{state}, 0, false, recipients.size()};
  }

  void update(QueueId id, std::vector<std::pair<std::size_t, RecipientState>> changes) {
    Edit edit;
    edit.recipients = changes;
    t_.spool->update(id, std::move(changes));
    note(id, edit);
  }
  void hold(QueueId id) {
    Edit edit;
    edit.hold = "test";
    if (t_.spool->hold(id, "test")) note(id, edit);
  }
  void remove(QueueId id) {
    if (t_.spool->remove(id)) known_.at(id).ended = true;
  }

  // All that was said so far is durable now, if the disk let it.
  void sync() {
    t_.sync();
    if (!t_.spool->has_room(0)) return;
    for (auto it = known_.begin(); it != known_.end();) {
      it->second.synced = it->second.states.size() - 1;
      if (it->second.ended) gone_.insert(it->first);
      it = it->second.ended ? known_.erase(it) : std::next(it);
    }
  }

  // After a restart: everything acknowledged is there with a state at most one sync old, nothing that has ended durably
  // has come back, and what is there has the content it was sent with.
  void compare() {
    for (const auto& [id, known] : known_) {
      const auto found = t_.spool->peek(id);
      if (!found && known.ended) continue;
      INFO("message " << id.to_string() << (found ? "" : ": " + found.error().text));
      REQUIRE(found.has_value());
      const auto from = known.states.begin() + static_cast<std::ptrdiff_t>(known.synced);
      const bool forgetful = t_.log.contains("cannot be read and is lost");  // reasons only
      const bool plausible = std::any_of(from, known.states.end(), [&](const MessageState& state) {
        return state == found->state || (forgetful && without_reasons(state) == without_reasons(found->state));
      });
      std::string all = describe(found->state) + " of";
      for (auto it = from; it != known.states.end(); ++it) all += " " + describe(*it);
      INFO(all);
      CHECK(plausible);
    }
    for (const QueueId id : t_.spool->ids({}, 100000)) {
      INFO("message " << id.to_string());
      CHECK_FALSE(gone_.contains(id));
      REQUIRE(attempted_.contains(id));
      CHECK(t_.content(id) == attempted_.at(id));
      const auto found = t_.spool->peek(id);
      REQUIRE(found.has_value());
      known_[id] = {{found->state}, 0, false, found->state.recipients.size()};
    }
    std::erase_if(known_, [&](const auto& known) { return !t_.spool->contains(known.first); });
  }

  std::vector<QueueId> living() const {
    std::vector<QueueId> ids;
    for (const auto& [id, known] : known_) {
      if (!known.ended) ids.push_back(id);
    }
    return ids;
  }
  std::size_t recipients(QueueId id) const { return known_.at(id).recipients; }

 private:
  struct Known {
    std::vector<MessageState> states;
    std::size_t synced = 0;  // all before it are history
    bool ended = false;
    std::size_t recipients = 1;
  };
  static MessageState without_reasons(MessageState state) {
    state.hold_reason.clear();
    for (RecipientState& recipient : state.recipients) {
      const RecipientState all = std::exchange(recipient, {});
      recipient.status = all.status;
      recipient.next_attempt = all.next_attempt;
    }
    return state;
  }
  static std::string describe(const MessageState& state) {
    std::string text = state.held ? "[held" : "[";
    for (const RecipientState& recipient : state.recipients) {
      text += " " + std::to_string(static_cast<int>(recipient.status)) + recipient.reason;
    }
    return text + "]";
  }
  void note(QueueId id, const Edit& edit) {
    Known& known = known_.at(id);
    MessageState next = known.states.back();
    apply(edit, next);
    known.ended = known.ended || next.finished();
    known.states.push_back(std::move(next));
  }

  TestSpool& t_;
  std::size_t count_ = 0;
  std::map<QueueId, std::string> attempted_;
  std::map<QueueId, Known> known_;
  std::set<QueueId> gone_;
};

// One random step of a spool's life.
inline void step(TestSpool& t, Model& model, std::mt19937& random) {
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
  const auto living = model.living();
  t.clock.advance(std::chrono::milliseconds(random() % 1000));
  switch (below(12)) {
    case 0:
    case 1:
    case 2: {
      std::vector<std::string> recipients{"a@example.com"};
      if (below(3) == 0) recipients.push_back("b@example.net");
      return model.accept(recipients, below(8) == 0 ? 9000 : below(3000));
    }
    case 3:
    case 4:
    case 5:
      if (living.empty()) return;
      return model.update(living[below(living.size())], {{0, done()}});
    case 6:
      if (living.empty()) return;
      return model.update(living[below(living.size())],
                          {{0, deferred(t.clock.now() + 1h, "try " + std::to_string(random() % 1000))}});
    case 7:
      if (living.empty()) return;
      if (const QueueId id = living[below(living.size())]; model.recipients(id) > 1) model.update(id, {{1, done()}});
      return;
    case 8:
      if (!living.empty()) model.hold(living[below(living.size())]);
      return;
    case 9:
      if (!living.empty() && below(4) == 0) model.remove(living[below(living.size())]);
      return;
    case 10:
      return model.sync();
    default:
      t.spool->maintain();
  }
}

}  // namespace greymx::test
