// Package desk does the acts of a CRM that touch more than one record, or that note what was done at the program's time: who has a record, converting a lead,
// approving and sending an offer, making a contract of it, signing that, planning and booking payments, issuing an invoice, moving stock with its orders, ordering
// tasks, publishing a form, emptying the recycle bin. Each act is one transaction of
// crm/guard, decided on and logged as such: all of it happens or nothing.
//
// The rules are those of the packages beside this one (crm, crm/pool, crm/sales, crm/finance, crm/stock, crm/trash), which store nothing. This
// package reads what the rules need, asks them, and hands the writes and the limits that must hold with them to a [guard.Tx]: of two who
// claim the last record that a quota allows, one gets it, on every store.
//
// # One door
//
// Owner and pool of a customer or a lead are reserved fields: no update, import or creation sets them (crm/guard refuses it), so every
// change of who has a record goes through [Desk.Claim] and its kin, obeys the pool, and leaves a pool.Ownership.
//
// The same holds for what an act decides elsewhere: what is reserved, how a record may begin, and what is made by acts only is said by the types
// (Reserved, CheckNew, MadeByActs).
//
// # Errors
//
// Those of crm/guard, *pool.Refusal, *crm.InvalidError, *crm.TransitionError, *stock.ShortError, *finance.ClosedError, *project.CycleError. Nothing was
// stored then, but for crm.ErrUnknown.
package desk
