--- What a spec begins with: `require "tests.lua.helper"` finds the runtime under lua/ and the C
--- modules host.* of the build in $BUILD.
package.path = "lua/?.lua;lua/?/init.lua;" .. package.path
package.cpath = (os.getenv("BUILD") or "build") .. "/?.so;" .. package.cpath
local host = require "hostlua"
require "tests.lua.provoked"
return host
