// Package review answers a reviewer's questions about rights: who may do this, what may this person do,
// which rights does nobody use, who has changed their work and kept their roles. It decides nothing itself
// and works over any authz.Authorizer.
//
// # Which function
//
//   - [WhoCan] and [WhatCan] ask the policy: they list what is permitted, with the controls that permit it.
//   - [Matrix] writes down what each role gives, as text that changes only where rights change. Keep it
//     under version control and read its difference.
//   - [Unused], [Movers] and [Conflicts] read who holds which role and compare: with the log, with last
//     month, with the pairs that nobody may hold together.
//   - A [Campaign] asks a reviewer for each grant whether it is still needed. What nobody confirms lapses.
//
// Every report becomes a [Table], for people (text, a page of HTML) or for other programs (CSV).
//
// # State
//
// Nothing is stored here. A Campaign is a plain value that the program keeps where it keeps its records;
// uses of a right are read by the program from its log. Functions that answer with an error answer with
// nothing else: a list is complete or absent.
//
// # Personal data
//
// Reports name people by the ids that they were given. Errors name nobody.
//
// # Not covered
//
// Whether a reviewer looked before they confirmed. Roles that one role brings along are not resolved: give
// [Conflicts] the effective ones.
package review
