# METADATA
# title: Delegation
# description: >-
#   A deputy acts on the records of who is away, for some actions and a while, and only as far as a role of
#   the deputy's own goes to such records. It never passes on: neither sharing nor a further delegation, which
#   is a record of a type that is not delegable, can rest on it. Nor does a deputy give away what is another's.
# schemas:
#   - input: schema.input
# custom:
#   control: ISO 27001 A.5.3
package crm.delegation

import data.crm.rbac

# METADATA
# title: Given
# description: The record's owner has delegated this action to the subject, and that still holds.
given if {
	input.action in data.settings.delegable_actions
	not input.action in {"share", "approve", "certify", "declassify", "manage", "purge"}
	not input.action in {"claim", "assign", "transfer", "release", "recycle", "handover", "enter", "lock", "merge"}
	input.resource.type in data.settings.delegable_types
	not input.resource.type in {"delegation", "sharing", "emergency", "export", "certification", "account"}
	not input.resource.type in {"ownership", "erasure", "hold"}
	count(rbac.depths) > 0
	input.environment.time > 0
	some delegation in input.subject.delegations
	delegation.from > ""
	delegation.from == input.resource.owner
	input.action in delegation.actions
	delegation.until > input.environment.time
	delegation.until <= 9223372036854775807
}
