# METADATA
# title: Amount limits
# description: >-
#   How large an amount somebody may approve. Limits are data: by type, then by role, in minor units; the largest of
#   the subject's roles counts. A role without a limit for a type that has some approves nothing of it.
# schemas:
#   - input: schema.input
# custom:
#   control: ISO 27001 A.5.3
package crm.amount

import data.crm.facts

# METADATA
# scope: document
# title: Within the limit
# description: Nothing is approved, or the type has no limits, or the amount is within that of a role.
limit if {
	input.action in data.settings.actions
	input.action != "approve"
}

limit if {
	limits := data.settings.limits
	is_object(limits)
	input.action == "approve"
	not input.resource.type in object.keys(limits)
}

limit if {
	input.action == "approve"
	input.resource.amount >= 0
	some role in facts.roles
	most := data.settings.limits[input.resource.type][role]
	is_number(most)
	input.resource.amount <= most
}
