// Package org has the organisation of employees: who is whose superior, joining, moving, and leaving with a handover of everything
// that was owned. It imports the standard library and crm only; it stores nothing, and the time is an argument.
//
// The superior of an employee is the record's owner. A [Tree] is made of all employees of a tenant. Where stored
// employees are above one another, it cuts the cycle and tells it ([Tree.Cycles]); [Tree.Move] makes none: [CycleError].
//
// Somebody who leaves owns nothing afterwards: [Tree.Handover] gives every record and every report a new owner, or says by
// [LeftOverError] what has none, and [Plan.Leave] takes the last step only when nothing is left.
package org
