# METADATA
# title: Field policy
# description: >-
#   How much of each field a subject sees: pairs of a class, or of a field's name, and a level. Of several
#   pairs the highest level counts; a name's pairs go before those of its class. A class that no pair names
#   is hidden.
# schemas:
#   - input: schema.input
# custom:
#   control: ISO 27001 A.8.11
package crm.fields

import data.crm.facts

# METADATA
# title: View
# description: The kind of view an action is; lists show less than pages.
view := data.settings.views[input.action]

# METADATA
# title: Access by class
# description: What the subject's roles show of each class.
by_class contains [class, level] if {
	some role in facts.roles
	some class, level in data.settings.fields[role][view]
}

# METADATA
# title: Access by name
# description: What the subject's roles show of single fields of this type.
by_name contains [field, level] if {
	some role in facts.roles
	some field, levels in data.settings.field_overrides[role][input.resource.type]
	level := levels[view]
}
