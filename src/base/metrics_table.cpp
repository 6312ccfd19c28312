// Every metric there is, one row each: name, type, help, labels, for histograms the upper bounds of the buckets, and
// which series with labels there are from the start, so that an alert on their rate sees the first one (not the codes
// that an access file makes up).
#include "base/metrics.hpp"

namespace greymx {

namespace {

const std::vector<double> latency = {0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10};
const std::vector<double> waits = {10, 30, 60, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 86400, 172800};
const std::vector<double> batches = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024};

}  // namespace

// clang-format off
const std::vector<Metrics::Description>& Metrics::table() {
  static const std::vector<Description> rows = {
      {"greymx_connections", "gauge", "SMTP connections that are open now", ""},
      {"greymx_sessions_total", "counter", "SMTP sessions begun", ""},
      {"greymx_tls_sessions_total", "counter", "TLS handshakes completed, by direction (in, out) and protocol version", "direction,version", {}, "in,TLSv1.2;in,TLSv1.3;out,TLSv1.2;out,TLSv1.3"},
      {"greymx_rejects_total", "counter", "Commands refused, by check and reply code", "check,code", {}, "access.clients,450;access.clients,554;access.helo,450;access.helo,554;access.senders,450;access.senders,554;access.recipients,450;access.recipients,554;relay_control,554;invalid_helo,501;unauth_pipelining,503;non_fqdn_sender,504;unknown_sender_domain,450;unknown_sender_domain,550;non_fqdn_recipient,504;early_talker,550;recipients,550;verify_recipients,450;verify_recipients,550;dnsbl,554;greylist,450;callout,450;callout,550;message_size,552;min_free_space,452;recipients_per_message,452;bare_lf,550;hops,554;write_error,451"},
      {"greymx_messages_accepted_total", "counter", "Messages that were answered with 250 after their end", ""},
      {"greymx_dns_lookups_total", "counter", "Questions asked of DNS servers, by type and outcome", "type,outcome"},
      {"greymx_dns_cache_hits_total", "counter", "Lookups answered from the DNS cache", ""},
      {"greymx_dnsbl_lookups_total", "counter", "Block list lookups, by list and result", "list,result"},
      {"greymx_dnsbl_lookup_seconds", "histogram", "Time that block list lookups took, by list", "list", latency},
      {"greymx_dnsbl_list_up", "gauge", "1 if the block list is in use, 0 if it was switched off after failing", "list"},
      {"greymx_callouts_total", "counter", "Questions asked of primaries about recipients, by outcome", "outcome", {}, "accepted;refused;inconclusive"},
      {"greymx_recipient_memory_records", "gauge", "Recipients remembered from callouts and deliveries", ""},
      {"greymx_greylist_decisions_total", "counter", "Greylist decisions, by verdict and reason", "verdict,reason", {}, "greylist,new;greylist,early-retry;pass,triplet found;pass,client AWL;pass,client whitelist;pass,recipient whitelist;pass,pass entry;pass,expected;pass,dry-run;pass,store error;greylist,store error"},
      {"greymx_greylist_records", "gauge", "Records in the greylist store", ""},
      {"greymx_greylist_first_retry_seconds", "histogram", "Time from a first attempt to the first retry, passed or not", "", waits},
      {"greymx_queue_messages", "gauge", "Messages in the queue, by recipient domain", "domain"},
      {"greymx_queue_bytes", "gauge", "Bytes in the queue, by recipient domain", "domain"},
      {"greymx_queue_oldest_seconds", "gauge", "Age of the oldest message in the queue, by recipient domain", "domain"},
      {"greymx_queue_expiry_seconds", "gauge", "Time until the oldest message expires, by recipient domain; held mail counts as if it waited", "domain"},
      {"greymx_primary_up", "gauge", "1 if the primary of the domain is reachable, else 0", "domain"},
      {"greymx_primary_changed_timestamp_seconds", "gauge", "Unix time at which the primary of the domain last went up or down", "domain"},
      {"greymx_deliveries_total", "counter", "Delivery attempts by recipient, by domain and result", "domain,result"},
      {"greymx_spool_batch_messages", "histogram", "Messages made durable by one sync", "", batches},
      {"greymx_spool_sync_seconds", "histogram", "Time that syncing the spool to disk took", "", latency},
      {"greymx_spool_free_bytes", "gauge", "Free bytes on the file system of the spool", ""},
      {"greymx_event_loop_lag_seconds", "histogram", "How late network threads run what is due", "", latency},
      {"greymx_certificate_expiry_seconds", "gauge", "Time until the TLS certificate expires", ""},
      {"greymx_alerts_total", "counter", "Alerts raised for a person to look at", ""},
  };
  return rows;
}
// clang-format on

}  // namespace greymx
