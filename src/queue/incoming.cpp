#include "queue/incoming.hpp"

#include <fmt/format.h>

#include "base/mailbox.hpp"

namespace greymx::queue {

namespace {

constexpr std::size_t file_piece = 64 * 1024;  // of a large body, kept in memory before it is written

// The file of one body; used by one pool thread after the other.
struct OwnFile {
  std::string path;
  std::unique_ptr<File> file;
  std::uint64_t written = 0;

  Result<> write(Files& files, const std::vector<std::vector<char>>& pieces) {
    if (!file) {
      auto opened = files.open(path, OpenMode::create);
      if (!opened) return std::unexpected(opened.error());
      file = std::move(*opened);
    }
    for (const std::vector<char>& piece : pieces) {
      if (auto done = file->write(written, piece); !done) return done;
      written += piece.size();
    }
    return {};
  }
};

Task<Result<>> handed_over(Writer& writer, Append append) {
  auto start = [](auto handler, Writer* to, Append what) {
    asio::any_io_executor home = asio::get_associated_executor(handler);
    auto resume = [handler = std::move(handler)](Result<> result) mutable { std::move(handler)(std::move(result)); };
    what.waiter.emplace(std::move(home), std::move(resume));
    to->append(std::move(what));
  };
  // No cancellation slot: what was handed over cannot be taken back, only awaited.
  auto token = asio::bind_cancellation_slot(asio::cancellation_slot(), asio::use_awaitable);
  Writer* to = &writer;
  Result<> result =
      co_await asio::async_initiate<decltype(token), void(Result<>)>(std::move(start), token, to, std::move(append));
  co_return result;
}

class Body final : public Incoming {
 public:
  Body(const IntakeParts& parts, QueueId id) : parts_(parts), id_(id) {}

  ~Body() override {
    parts_.space.buffered -= in_memory_;
    if (!own_file_ || handed_over_) return;
    auto discard = [&files = parts_.files, own_file = std::move(own_file_)] {
      own_file->file.reset();
      static_cast<void>(files.remove(own_file->path));  // what is left of it goes at the next start
    };
    asio::post(parts_.pool, std::move(discard));
  }

  QueueId id() const override { return id_; }

  Task<Result<>> write(std::vector<char> bytes) override {
    if (failed_) co_return std::unexpected(*failed_);
    if (!parts_.space.room(bytes.size())) co_return failure({ErrorKind::no_space, "less than min_free_space is free"});
    size_ += bytes.size();
    crc_ = crc32c({bytes.data(), bytes.size()}, crc_);
    in_memory_ += bytes.size();
    parts_.space.buffered += bytes.size();
    pieces_.push_back(std::move(bytes));
    const bool crowded = parts_.space.buffered > parts_.space.memory;
    const bool large = size_ > parts_.settings.large_message;
    if (!crowded && !(large && (!own_file_ || in_memory_ >= file_piece))) co_return Result<>();
    Result<> spilt = co_await spill_over();
    co_return spilt;
  }

  Task<Result<>> commit(Envelope envelope) override {
    if (failed_) co_return std::unexpected(*failed_);
    if (own_file_) {
      Result<> synced = co_await sync_own_file();
      if (!synced) co_return synced;
    }
    Append append = make_record(std::move(envelope));
    handed_over_ = true;
    Result<> result = co_await handed_over(parts_.writer, std::move(append));
    handed_over_ = result.has_value();
    co_return result;
  }

 private:
  Result<> failure(Error error) {
    failed_ = std::move(error);
    return std::unexpected(*failed_);
  }

  Task<Result<>> spill_over() {
    if (!own_file_) own_file_ = std::make_shared<OwnFile>(OwnFile{large_path(parts_.settings.path, id_), nullptr});
    auto work = [&files = parts_.files, own_file = own_file_, pieces = std::exchange(pieces_, {})] {
      return own_file->write(files, pieces);
    };
    const std::uint64_t bytes = in_memory_;
    Result<> written = co_await offload(parts_.pool, std::move(work));
    in_memory_ -= bytes;
    parts_.space.buffered -= bytes;
    parts_.space.free -= static_cast<std::int64_t>(bytes);
    if (!written) co_return failure(written.error());
    co_return written;
  }

  // The content is durable under its name before the record that names it.
  Task<Result<>> sync_own_file() {
    if (!pieces_.empty()) {
      Result<> spilt = co_await spill_over();
      if (!spilt) co_return spilt;
    }
    auto work = [&files = parts_.files, own_file = own_file_, directory = parts_.settings.path] {
      Result<> done = own_file->file->sync();
      if (done) done = own_file->file->close();
      if (done) done = files.sync_directory(directory + large_directory);
      return done;
    };
    Result<> synced = co_await offload(parts_.pool, std::move(work));
    if (!synced) co_return failure(synced.error());
    co_return synced;
  }

  Append make_record(Envelope envelope) {
    StoredMessage message;
    message.own_file = own_file_ != nullptr;
    message.size = size_;
    message.crc = crc_;
    message.state.held = envelope.hold;
    message.state.hold_reason = envelope.hold ? "held by an access file" : "";
    message.state.recipients.resize(envelope.recipients.size());
    for (RecipientState& recipient : message.state.recipients) recipient.next_attempt = parts_.clock.now();
    message.envelope = std::move(envelope);
    Append append = make_append(make_entry(id_, message), 0, encode(message));
    append.arrival = fmt::format("from=<{}>, size={}, nrcpt={} ({})", printable(message.envelope.reverse_path), size_,
                                 message.envelope.recipients.size(), message.state.held ? "on hold" : "queue active");
    if (!own_file_) {
      append.body = std::exchange(pieces_, {});
      append.body_length = static_cast<std::uint32_t>(size_);
      append.body_crc = crc_;
    }
    return append;
  }

  const IntakeParts& parts_;
  QueueId id_;
  std::uint64_t size_ = 0;
  std::uint32_t crc_ = 0;
  std::uint64_t in_memory_ = 0;
  std::vector<std::vector<char>> pieces_;
  std::shared_ptr<OwnFile> own_file_;
  std::optional<Error> failed_;
  bool handed_over_ = false;  // or durable: the file is the queue's
};

}  // namespace

std::unique_ptr<Incoming> make_incoming(const IntakeParts& parts, QueueId id) {
  return std::make_unique<Body>(parts, id);
}

}  // namespace greymx::queue
