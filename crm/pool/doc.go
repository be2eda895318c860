// Package pool has the rules of public pools (公海, 线索池): customers and leads that nobody owns, who may claim or assign them, and
// when they go back. It imports the standard library and crm only; it stores nothing, and the time is an argument.
//
// # One door
//
// [Pool.Change] is the only way in which the owner of a pooled record changes, whether somebody claims, assigns, transfers, returns or
// leaves, or the clock runs out. It decides and yields a [Change]: what to set and under which conditions. A store applies it in
// one transaction that holds only while the record has the version and owner that were decided on and the caps still are not reached, so that of
// two who claim at once one gets the record. When the record was created is never touched.
//
// # Three clocks
//
// A record goes back at the later of claim + Protect and last follow-up + Extend, but never after claim + Max. With 10, 3 and 20 days, claimed on
// 25 March it goes back on 4 April; a follow-up on 28 March changes nothing; one on 2 April makes it 5 April; 14 April is the end, whatever
// happens. "Back after N days without follow-up, or M without a deal" is [FollowUpOrDeal]. A record that is locked or whose deal is won
// does not go back.
//
// Days are days of the pool's zone: one day later is the same wall time of the next date.
//
// # Refusals
//
// [Refusal] says why somebody may not do something, as a stable word, and until when where that is known.
package pool
