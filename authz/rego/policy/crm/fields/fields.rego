# METADATA
# title: Field policy
# description: >-
#   How much of each field a subject sees, by the field's class, with overrides by name. Levels are 0
#   hidden, 1 masked, 2 open; of several roles the highest counts. A class that no rule names is hidden.
# schemas:
#   - input: schema.input
# custom:
#   control: ISO 27001 A.8.11
package crm.fields

import data.crm.rbac

# METADATA
# title: View
# description: The kind of view an action is; lists show less than pages.
view := data.settings.views[input.action]

# METADATA
# title: Access by class
# description: The highest access among the subject's roles, for each class that some role names.
by_class[class] := level if {
	some class in data.settings.classes
	levels := {number |
		some role in rbac.effective_roles
		name := data.settings.fields[role][view][class]
		number := data.settings.levels[name]
	}
	level := max(levels)
}

# METADATA
# title: Access by name
# description: Overrides for single fields of this type.
by_name[field] := level if {
	some role in rbac.effective_roles
	some field, _ in data.settings.field_overrides[role][input.resource.type]
	levels := {number |
		some other in rbac.effective_roles
		name := data.settings.field_overrides[other][input.resource.type][field][view]
		number := data.settings.levels[name]
	}
	level := max(levels)
}
