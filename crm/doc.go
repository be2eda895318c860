// Package crm holds the domain of a customer relationship system: its types, their rules, and the
// shape in which a protected record is stored. It imports the standard library only.
//
// # Words
//
// A record is one domain object: a Customer, a Contact, a Lead and so on. A person is the human whose
// data a record holds; the person's id is carried from lead to contact through conversion, so that one
// human has one id and one set of keys. A field has a class (public, internal, personal, sensitive,
// financial), written in its protect tag.
//
// # Personal fields
//
// A field that holds personal data is a [Text]. It prints as ***, marshals as ***, and yields its
// value only to Expose. A Text that was read through a policy may be masked, hidden, sealed or erased;
// written back in that state it leaves the stored value as it was.
//
// # Packages
//
// Around this package lie others that stand on it or alone, on the standard library only: sales, finance, stock, project, pool, org, form,
// flow, sla, worktime, money, tally and trash. Their types are protected and stored as those here; their rules are functions of records and a
// time, and what changes a record yields the change rather than making it.
//
// # Stores
//
// A [Store] keeps [Row] values and knows no domain type. A Row carries clear columns, sealed fields
// and index tokens; it never carries plaintext. crm/guard builds and reads Rows; nothing else in a
// program should hold a Store. The conformance suite is crm/crmtest.
//
// # Errors
//
// [InvalidError] names the fields that break a rule, [TransitionError] names both states of a
// forbidden transition. The sentinels [ErrNotFound], [ErrConflict] and [ErrDuplicate] are what
// callers branch on. No error text holds a field's value.
package crm
