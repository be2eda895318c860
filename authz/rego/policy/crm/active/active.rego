# METADATA
# title: Active subject
# description: Who has left or is suspended may do nothing.
# schemas:
#   - input: schema.input
# custom:
#   control: ISO 27001 A.5.18
package crm.active

# METADATA
# title: Subject
# description: The subject is known by an id and marked as active.
subject if {
	input.subject.active == true
	input.subject.id != ""
}
