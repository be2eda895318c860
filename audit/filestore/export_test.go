package filestore

// SetStep makes f called between the steps of Prune.
func SetStep(f func(string) error) {
	if f == nil {
		f = func(string) error { return nil }
	}
	step = f
}
