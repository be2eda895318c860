package sqlstore

// TextOfPersons is for the test of its plan.
var TextOfPersons = textOfPersons
