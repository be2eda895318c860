# METADATA
# title: Mandatory access control
# description: >-
#   Levels and need-to-know compartments above every grant, share, delegation and emergency (Bell and
#   LaPadula). No read up: whatever shows or changes a record that exists needs a session of at least its
#   level, cleared for all its compartments. No write down: what is written has at least the level at which the
#   session runs. The level of a session is chosen at its start, up to the person's clearance, so somebody
#   cleared for level 2 works on records of level 0 in a session of level 0. Creating needs no right to read, so
#   anybody may report something upwards. Lowering a record's level is an action of its own, the only write
#   that may go down; it needs a grant, and obligations go with it. Where every level is 0 and no record has
#   compartments, nothing changes. Compartments bound reading only.
#   An action that the settings do not name here is taken as one that reads and writes.
# schemas:
#   - input: schema.input
# custom:
#   control: ISO 27001 A.5.12
package crm.mac

import data.crm.facts

# METADATA
# scope: document
# title: No read up
# description: The session dominates the record, or the action shows nothing of what exists.
read if {
	input.action in data.settings.mac.blind
	input.resource.level >= 0
}

read if {
	input.resource.level >= 0
	input.resource.level <= facts.level
	within
}

# METADATA
# scope: document
# title: No write down
# description: The record has at least the session's level, or the action writes nothing, or it may go down.
write if input.action in data.settings.mac.reading

write if input.action in data.settings.mac.trusted

write if {
	input.resource.level >= facts.level
	input.resource.level <= top
}

# Above every number are the strings; this keeps them out.
top := 2147483647

# Not beyond alone would also hold of compartments that are missing or no list: they have to be none, or one
# of them known.
within if count(input.resource.compartments) == 0

within if {
	not beyond
	some compartment in input.resource.compartments
	compartment in facts.compartments
}

beyond if {
	some compartment in input.resource.compartments
	not compartment in facts.compartments
}
