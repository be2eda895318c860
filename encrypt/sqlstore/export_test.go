package sqlstore

// TextOfIDs and TextOfPersons are for the test of their plans.
const (
	TextOfIDs     = textOfIDs
	TextOfPersons = textOfPersons
)
