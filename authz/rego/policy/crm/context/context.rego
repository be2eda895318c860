# METADATA
# title: Context
# description: >-
#   What circumstances are demanded (attribute-based access): working hours, a trusted network, a managed
#   device, a region. Settings name the actions, types and roles of which each is demanded; one of them is
#   enough. Settings that lack a list demand it of everybody.
# schemas:
#   - input: schema.input
# custom:
#   control: ISO 27001 A.8.5
package crm.context

import data.crm.facts

# METADATA
# scope: document
# title: Hours
# description: It is a working hour of the subject, where that is demanded.
hours if spared(data.settings.context.hours)

hours if facts.in_hours

# METADATA
# scope: document
# title: Network
# description: The client's address is in a trusted network, where that is demanded.
network if spared(data.settings.context.network)

network if facts.trusted_network

# METADATA
# scope: document
# title: Device
# description: The device is managed, where that is demanded.
device if spared(data.settings.context.device)

device if facts.managed_device

# METADATA
# scope: document
# title: Region
# description: The subject works in a region that the settings name for the action, if they name any list for it.
region if {
	regions := data.settings.context.regions
	is_object(regions)
	not input.action in object.keys(regions)
}

region if facts.region in data.settings.context.regions[input.action]

# Spared is whom a demand does not concern.
spared(demand) if {
	is_array(demand.actions)
	is_array(demand.types)
	is_array(demand.roles)
	not input.action in demand.actions
	not input.resource.type in demand.types
	facts.roles & {role | some role in demand.roles} == set()
}
