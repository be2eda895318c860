# METADATA
# title: Tenant separation
# description: A subject acts on records of their own tenant only, whatever gives access.
# schemas:
#   - input: schema.input
# custom:
#   control: ISO 27001 A.8.3
package crm.tenant

# METADATA
# title: Same tenant
# description: Subject and record name the same tenant, and it is no empty word and no null.
same if {
	input.subject.tenant > ""
	input.resource.tenant == input.subject.tenant
}
