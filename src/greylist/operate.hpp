// What `greymx greylist …` does: looking at and steering a running greylist. Everything that lists hands over text of
// complete JSON lines, a slice of the store at a time, so that millions of records neither fill memory nor hold up
// mail.
//
// Thread: any network thread; coroutines resume there, and the sink is called there.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "greylist/greylister.hpp"
#include "greylist/postgrey_import.hpp"

namespace greymx::greylist::operate {

// Takes one or more complete lines; false: enough, stop.
using Sink = std::function<Task<bool>(std::string lines)>;

// What waits and may still come back, and the `pass` and `expect` entries:
// {"type":"waiting","client":"192.0.2.0","sender":"a@b.c","recipient":"d@e.f","first":T,"last":T,"passes_from":T,"tries":1}
// {"type":"pass","subject":"192.0.2.0/24","since":T,"until":T,"comment":"…"}   without "until": for good
Task<Result<>> list(Greylister& greylister, Sink sink);

// One object: records by state as long as they are kept (one that waits: until twice its retry window is over),
// entries, and what is wrong with the store, if anything. It is what the metrics say, and costs no look at the records.
Task<Result<>> stats(Greylister& greylister, Sink sink);

// {"type":"never_returned", as "waiting"}: its retry window is over. Then {"type":"first_retries","within":[{"seconds":
// 60,"count":2},…],"later":0} and {"type":"proposal","subject":"example.org","passed":12,"networks":3}: client domains
// whose mail always comes back, from so many networks at least, worth a line in whitelist_clients.
Task<Result<>> report(Greylister& greylister, Sink sink);

// Lets a client address, a network, a domain (of the client's name or the sender) or a sender address through, for
// `duration` (0: for good).
Task<Result<>> pass(Greylister& greylister, std::string subject, std::chrono::seconds duration, std::string comment);
// Lets everything to one recipient through for a while.
Task<Result<>> expect(Greylister& greylister, std::string recipient, std::chrono::seconds duration);
// Removes entries and records of a client, network, domain or address.
struct Forgotten {
  std::size_t records = 0;  // so far, if it failed
  Result<> done;
};
Task<Forgotten> forget(Greylister& greylister, std::string subject);

// All records, and the reverse. Lines as export writes them; what does not parse is skipped and counted.
Task<Result<>> export_all(Greylister& greylister, Sink sink);
Task<Result<ImportReport>> import_lines(Greylister& greylister, std::string lines);
std::string export_line(const Stored& stored);

}  // namespace greymx::greylist::operate
