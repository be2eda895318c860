package transfer

// DeriveFirst makes ids as the first version of the format did; the returned function ends that.
func DeriveFirst() (back func()) {
	derive = derivedFirst
	return func() { derive = derived }
}
