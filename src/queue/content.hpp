// Content of a message as Spool and SpoolReader hand it out.
#pragma once

#include "queue/record.hpp"
#include "queue/spool.hpp"

namespace greymx::queue {

std::unique_ptr<Content> make_content(std::string text);
// Passes errors of `content` through `on_error`.
std::unique_ptr<Content> watch(std::unique_ptr<Content> content, std::function<Error(Error)> on_error);

// The file that a message record names. invalid: it is gone, or is not as long as it should be; the read that reaches
// its end says so too if its checksum is wrong, provided that all was read in order.
Result<std::unique_ptr<Content>> open_own_file(Files& files, const std::string& directory, QueueId id,
                                               const StoredMessage& stored);

}  // namespace greymx::queue
