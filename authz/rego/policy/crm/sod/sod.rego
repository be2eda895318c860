# METADATA
# title: Separation of duties
# description: >-
#   Static: nobody acts with two roles that exclude each other. Dynamic: what takes a second person is not done by
#   somebody who had a part in the record so far.
# schemas:
#   - input: schema.input
# custom:
#   control: ISO 27001 A.5.3
package crm.sod

import data.crm.facts

# METADATA
# title: Violations
# description: >-
#   The sets of roles that one person has and that exclude each other. It is also for assigning roles and for
#   reviews: ask it with input.subject.roles as all roles that the person has or is to get.
violations contains held if some held in facts.exclusive

# METADATA
# title: Static separation
# description: The roles activated in the session do not exclude each other.
static if {
	is_array(data.settings.exclusive_roles)
	count(violations) == 0
}

# METADATA
# scope: document
# title: Dynamic separation
# description: >-
#   The action takes no second person, or somebody is on the record as having asked for it or changed it, and
#   that is not the subject. A record that nobody had a part in is approved by nobody.
dynamic if {
	second := data.settings.second_person_actions
	is_array(second)
	input.action in data.settings.actions
	not input.action in second
}

dynamic if {
	input.action in data.settings.second_person_actions
	some _ in input.resource.actors
	input.subject.id > ""
	not input.subject.id in input.resource.actors
}
