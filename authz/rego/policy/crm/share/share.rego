# METADATA
# title: Shares
# description: >-
#   Discretionary access: the owner of a record shares it with somebody, for some actions and a while. What
#   may be shared at all is data, and sharing and approving are never part of it, so a share is not passed on; nor
#   is giving the record to somebody else or ending it.
#   A share by anybody but the record's owner of today gives nothing: it ends when the record changes hands.
# schemas:
#   - input: schema.input
# custom:
#   control: ISO 27001 A.5.15
package crm.share

# METADATA
# title: Given
# description: The record's owner has shared it with the subject for this action, and that still holds.
given if {
	input.action in data.settings.shareable_actions
	not input.action in {"share", "approve", "certify", "declassify", "manage", "purge"}
	not input.action in {"claim", "assign", "transfer", "release", "recycle", "handover", "enter", "lock", "merge"}
	input.resource.type in data.settings.shareable_types
	input.environment.time > 0
	some share in input.subject.shares
	share.record > ""
	share.by > ""
	share.record == input.resource.id
	share.by == input.resource.owner
	input.action in share.actions
	share.until > input.environment.time
	share.until <= 9223372036854775807
}
