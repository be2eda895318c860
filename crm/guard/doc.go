// Package guard is the one door to protected records. It composes a policy (authz), a log (audit),
// keys (encrypt) and a store (crm) into single operations, each of which keeps this order:
//
//  1. The row's MAC is checked, so that a forged owner or version is an error, not an opening.
//  2. The policy decides: allow or deny, access to each field, obligations. An obligation that is not
//     met or not known is a denial, a field that no rule names is hidden.
//  3. The event is appended to the log and is durable. No log, no data.
//  4. Only the fields that the policy opens are decrypted. Masked ones are masked here and never
//     returned whole.
//  5. A write stores person keys first, logs what it intends with the digest of each new row, then
//     writes rows, index tokens and the event's place in one transaction. [New] compares log and store
//     and marks as aborted what a crash kept from being written.
//
// Lists push the policy into the store's query and decide again on each row that comes back; the two
// must agree, or nothing is returned.
//
// # Use
//
// Make one [Guard] with New and one [Records] for each type with [For]. A type is a struct with
// protect tags (see encrypt) that embeds crm.Meta.
//
//	patients, err := guard.For[*Patient](ctx, g, nil)
//	view, err := patients.Get(ctx, caller, id)
//
// The policy knows a type by its name, which is that of the struct in lower case unless [TypeOptions] gives another, and refuses every action
// on one that it has no grants for. The shipped policy gets them by data, without a line of Rego:
//
//	policy, err := rego.Extend(rego.Embedded(), `{"settings": {"grants": {"nurse": {"patient": {"list": "team", "read": "team", "create": "all"}}}}}`)
//	engine, err := rego.New(ctx, &rego.Options{Policy: policy})
//
// A grant is "own", "team" or "all": own are the records whose owner is the subject, so Subject.ID must be a UUID (crm.NewUUID) for anybody
// to own anything, and Subject.Team a path such as /east/1/. What any role of a
// subject says of a field by its name counts instead of what the others show of its class; of several such words the most open one. The masks that a tag may name are those of encrypt/normalize.
//
// # Errors
//
// Who may not read a record gets crm.ErrNotFound, as if it did not exist. Who may read it but not do
// what was asked gets an *authz.DeniedError, which names the controls. [ErrForged] means that a row does
// not carry a valid MAC. Errors of the log, the keys and the store come through wrapped and always
// mean that nothing was returned and nothing was written, but for crm.ErrUnknown, after which the next
// start settles what happened.
//
// # Not protected
//
// Which rows exist, their sizes, clear columns and equality of indexed values are visible to who reads
// the database. Who holds the keys of the process holds everything that the process may read.
package guard
