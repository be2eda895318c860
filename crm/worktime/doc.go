// Package worktime computes with business time: hours of work on a calendar with holidays, special days, a time zone and
// pauses. It imports the standard library only and asks no clock: every moment is an argument.
//
// # Calendar
//
// A [Definition] is plain data, such as
//
//	{"zone": "Asia/Shanghai",
//	 "week": {"mon": "09:00-12:00 13:30-18:00", "tue": "09:00-18:00"},
//	 "days": {"2026-10-01": "", "2026-10-10": "09:00-18:00"}}
//
// A day of the week that is not named is off. A date in days takes the place of its weekday: "" makes it a holiday, hours make a Saturday a
// working day. Hours are spans HH:MM-HH:MM of the wall clock, ascending, separated by spaces; 24:00 ends a day, so a night shift is two
// spans on two days.
//
// Work is elapsed time: a night shift is an hour shorter when the clocks go forward in it. A wall time that the change skips is the moment of the
// change, one that occurs twice is the first.
//
// Zones are those of the machine; a program for machines without them imports time/tzdata.
//
// # Errors
//
// [ErrDefinition] is a definition that is not one; its text names the day, never more. [ErrNever] is an amount of work that the calendar does
// not reach in ten years. [ErrNegative] is work of less than nothing.
package worktime
