// Package flow has workflows as data: states, steps between them, conditions and approvals, run as pure functions on an instance that
// carries its own history. It imports the standard library and crm only; it stores nothing, and the time is an argument.
//
// A [Flow] may drive a form's entry (package form), a ticket, a project, a contract, or any record: an [Instance] names its type and id.
//
// # What is refused
//
// [Flow.Validate] refuses a flow that could not end well: a state that no path from the start reaches (unreachable), one from which no end
// can be reached, such as a cycle without a way out (endless), an approval that nobody could give (required), a step out of an
// end. So every instance can come to an end.
//
// # Conditions
//
// A [Condition] is data, never code: comparisons of named values with constants, joined by all, any and not, at most [MaxNodes] in all and
// [MaxDepth] deep. It reads values that are stored in the clear only: a condition on a personal value would show it by where the flow goes.
//
// # Approvals
//
// A step has no approval or several, one after the other: the superior of the asker at some height, any so many of some people, or all of
// them. Nobody approves what they asked for. Who approves is found when the approval begins and written down. A deadline refuses or goes one superior up.
package flow
