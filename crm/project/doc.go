// Package project has projects, their members and tasks that wait for one another. It imports the standard library and crm only; it
// stores nothing, and the time is an argument.
//
// Tasks form a graph without cycles ([Order], [CycleError]). Types embed crm.Meta and carry protect tags, so crm/guard protects them as it does
// those of package crm.
package project
