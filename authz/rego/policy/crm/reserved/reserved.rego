# METADATA
# title: Reserved roles
# description: >-
#   A role that is reserved to one subject, as the program's own, is a denial of everything for anybody else who
#   has it.
# schemas:
#   - input: schema.input
# custom:
#   control: ISO 27001 A.8.2
package crm.reserved

import data.crm.facts

# METADATA
# title: Kept
# description: The subject is known, and has no role that is reserved to another.
kept if {
	is_object(data.settings.reserved)
	input.subject.id > ""
	not misused
}

misused if {
	some role, owner in data.settings.reserved
	role in facts.roles
	input.subject.id != owner
}
