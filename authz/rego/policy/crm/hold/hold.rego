# METADATA
# title: Legal hold
# description: >-
#   A record under a legal hold is neither deleted, purged nor erased, whoever asks and however long it is overdue.
#   It may still be changed; its history keeps what it was.
# schemas:
#   - input: schema.input
# custom:
#   control: ISO 27001 A.5.33
package crm.hold

destroying := {"delete", "purge", "erase"}

# METADATA
# scope: document
# title: Free
# description: The action destroys nothing, or the record is not held.
free if {
	input.action in data.settings.actions
	not input.action in destroying
}

free if {
	input.action in destroying
	input.resource.held == false
}
