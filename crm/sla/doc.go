// Package sla says by when a ticket is to be answered and resolved, how it stands, and whom to tell when it does not go well. It
// imports the standard library and crm only; it stores nothing, and the time is an argument.
//
// An [Agreement] is data: business hours (crm/worktime), a target of each priority, and levels of escalation. [Agreement.Status] derives
// everything from the ticket's own times: nothing about a deadline is stored, so a calendar that is corrected corrects every deadline. All spans are
// business time, and pauses are taken out in business time: a pause over a holiday costs nothing.
package sla
