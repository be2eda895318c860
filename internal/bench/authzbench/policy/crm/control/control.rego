# METADATA
# title: Controls
# description: What bounds every access.
# schemas:
#   - input: schema.input
package crm.control

import data.crm.facts

active if {
	input.subject.active == true
	input.subject.id > ""
}

same_tenant if {
	input.subject.tenant > ""
	input.resource.tenant == input.subject.tenant
}

cleared if {
	input.resource.level >= 0
	input.resource.level <= facts.level
}

stepped_up if not input.action in data.settings.context.device.actions

stepped_up if facts.strong

changing := {"update", "delete"}

mutable if not input.action in changing

mutable if object.get(data.settings.frozen_states, input.resource.type, []) == []

mutable if {
	input.action in changing
	state := input.resource.state
	not state in data.settings.frozen_states[input.resource.type]
}
