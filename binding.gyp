# node-gyp's door to the same build: CMakeLists.txt has the sources, scripts/build.mjs runs it.
{
  "targets": [
    {
      "target_name": "simper_native",
      "type": "none",
      "actions": [
        {
          "action_name": "cmake",
          "inputs": ["CMakeLists.txt", "<!@(node scripts/build.mjs --list-sources)"],
          "outputs": ["<(module_root_dir)/build/cmake/Release/simper_native.node"],
          "action": ["node", "scripts/build.mjs", "--out", "build/cmake"]
        }
      ],
      "copies": [
        {
          "destination": "<(PRODUCT_DIR)",
          "files": ["<(module_root_dir)/build/cmake/Release/simper_native.node"]
        }
      ]
    }
  ]
}
