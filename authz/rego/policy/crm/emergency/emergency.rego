# METADATA
# title: Break-glass
# description: >-
#   An emergency opens the records of a type for reading, for a while, to somebody who has no other access to
#   them. Others have to approve it, as many as the settings say and at least one; who asks is none of them. The
#   program that fills in input.subject.emergencies names each approver once. Neither the tenant nor levels
#   and compartments are passed by it.
# schemas:
#   - input: schema.input
# custom:
#   control: ISO 27001 A.5.18
package crm.emergency

# METADATA
# title: Open
# description: An approved emergency is open for the records of this type, and reads them only.
open if {
	input.action in data.settings.emergency.actions
	input.action in {"list", "read", "search", "reveal", "history"}
	input.resource.type in data.settings.emergency.types
	input.environment.time > 0
	some emergency in input.subject.emergencies
	emergency.type == input.resource.type
	count(emergency.approvers) > 0
	count(emergency.approvers) >= data.settings.emergency.approvers
	not input.subject.id in emergency.approvers
	not "" in emergency.approvers
	emergency.until > input.environment.time
	emergency.until <= 9223372036854775807
}

# METADATA
# scope: document
# title: Obligations
# description: Whoever has access by the emergency alone states why, and somebody reviews it later.
obligations contains "reason" if alone

obligations contains "review" if alone

alone if {
	"emergency" in data.crm.authz.grounds
	not otherwise
}

otherwise if {
	some ground in data.crm.authz.grounds
	ground != "emergency"
}
