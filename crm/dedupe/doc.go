// Package dedupe finds records that are one thing, and merges them (查重).
//
// What makes two records one is data: [Rules] say by which comparators fields are compared (exact, normalised, phonetic, pinyin, address, edit distance,
// date), how these are grouped with AND and OR and weighed, and from which score on two records are likely or certain to be one. [Default] has rules
// for customers, leads and contacts: people in general and companies, with English and Chinese names.
//
//	checker, err := dedupe.New(customers, rules, nil)
//	matches, err := checker.Check(ctx, caller, &customer)        // before it is stored
//	report, err := checker.All(ctx, program, nil, found)         // all pairs, by a program
//
// # Finding
//
// Fields are sealed, so a check asks blind indexes (the keys of the rules) and crm/guard opens what they find, after the policy has decided which
// fields may be compared and the log has each candidate. What somebody learns of a record that they may not read is that it exists and whom to ask; see
// guard.Records.Alike. A field that the policy masks counts only when it is equal.
// All goes over every record and works in temporary files without personal data: see guard.Records.AlikeAll.
//
// # Merging
//
// A [Merger] makes one record of two in one transaction: the fields that were chosen, everything that referred to the other one, the other one in the recycle
// bin. Shares of the other one end and come back with an undoing: whoever saw it by one sees nothing of the kept one. The persons of both are one human from then on, so that erasing one erases both. [Merger.Undo] takes it back, field by field where nothing changed since, and never brings back
// anything of an erased person.
//
// # Errors
//
// Those of crm/guard; *crm.InvalidError for rules and choices that contradict themselves; *Refusal. Errors name fields and rules, never values.
//
// # Not protected
//
// A check is an answer: who may check learns, at the pace of their quota, whether somebody with a phone number is a customer. Rules whose setting is nothing
// do not tell.
package dedupe
