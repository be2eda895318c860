package sandbox

import "time"

// Shift is for the fuzz target.
func ShiftValue(v any, by time.Duration) (any, bool) { return shift(v, by, time.Microsecond) }

// Remap is for the fuzz target.
func (v *Inventor) Remap(id any) (any, bool) { return v.remap(id) }

// Offset is by how much the times of a person move.
func (v *Inventor) Offset(person string) time.Duration { return v.offset([]byte(person)) }
