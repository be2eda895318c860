// Package outbox tells other systems of changes of records by signed webhooks, Standard Webhooks 1 (https://www.standardwebhooks.com).
//
// An [Endpoint] is a record: where to send, of which types, and whose eyes read for it. A [Delivery] is a record too: one message to one endpoint. Both are under
// policy, keys and log like any other record.
//
//	ob := outbox.New(g, records, program, &outbox.Options{Caller: byEmployee}, outbox.From(customers), outbox.From(contacts))
//	go ob.Run(ctx)
//
// # What is told
//
// [Outbox.Collect] follows the changes of each type in the order of their commits (guard.Records.Changes), from the place where the endpoint began. A message says
// that a record is as it is now, TYPE.changed, or that it is gone, TYPE.deleted; it has the version of the record. What changed several times between two
// readings is told once, with the newest version, so a receiver takes it as "the record is now this" and drops a version that is older than what it has.
// There is no message "created", because a record that was made and changed between two readings would never have had one; version 1 says it where it is so.
//
// # Whose eyes
//
// An endpoint reads as its owner, who is the one that made it, with what the policy shows them in lists at the time of the reading: hidden fields are
// left out, masked ones are masked and named. Nobody makes an endpoint that sees more than they do. When the owner may no longer read, the endpoint fails and tells nothing.
//
// # None lost, none doubled
//
// The messages of a reading and the place up to which it went are stored in one transaction. The id of a message, which is the header webhook-id, follows from endpoint, type,
// record and version. A message is sent at least once: a crash between the answer and its
// noting sends it again, under the same id, by which receivers know it. The order of messages is not promised, not of one endpoint either: versions tell.
//
// # Personal data
//
// What waits is sealed under the person that it tells of, and fields of another person, such as the signatory of a contract, under that one. Erasing the person erases it: such a message is
// not sent and ends as dead. A message that was taken is purged after a day, one that nobody took after thirty; what the receiver does with it is theirs. Whoever
// erases a person tells receivers by other means: an erasure of keys alone changes no record.
//
// # Dialling
//
// Only https. The address is checked after the name was resolved, on the very connection (net.Dialer.Control): private, loopback, link-local,
// multicast, shared (CGNAT), translated (NAT64, 6to4, Teredo), mapped and reserved ones are refused, so no name leads into the network of the CRM. Redirects are not
// followed, proxies of the environment are not used, bodies are read to a small limit and forgotten. Public addresses of the operator's own
// hosts are not known here: a firewall has to.
//
// # Errors
//
// Those of crm/guard; [ErrSignature] and [ErrTimestamp] of [Verify]; *crm.InvalidError names fields of an endpoint. No error, log line or clear
// column has a URL, a body or a secret; of a URL only the host is kept in the clear.
//
// # Concurrency
//
// An Outbox is safe for concurrent use. One process runs it for a database; a second one is correct, and sends some messages twice.
package outbox
