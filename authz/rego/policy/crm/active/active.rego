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
# description: >-
#   The subject is marked as active and known by an id. Above "" is only what is a string, so that null, which
#   equals the null owner of a record, is no id.
subject if {
	input.subject.active == true
	input.subject.id > ""
}
