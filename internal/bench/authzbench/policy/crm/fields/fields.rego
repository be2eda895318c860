# METADATA
# title: Field policy
# description: How much of each field a subject sees.
# schemas:
#   - input: schema.input
package crm.fields

import data.crm.facts

view := data.settings.views[input.action]

by_class contains [class, level] if {
	some role in facts.roles
	some class, level in data.settings.fields[role][view]
}

by_name contains [field, level] if {
	some role in facts.roles
	some field, levels in data.settings.field_overrides[role][input.resource.type]
	level := levels[view]
}
